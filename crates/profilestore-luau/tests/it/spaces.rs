//! Data types of places and directions: what games ask of them beside data.

use crate::check;

#[test]
fn vectors_have_their_old_names_and_sides() {
    check(
        "local v = Vector3.new(3, 0, 4)
        assert(v.x == 3 and v.magnitude == 5 and v.unit == v.Unit and v:dot(v) == 25)
        assert(v // 2 == Vector3.new(1, 0, 2) and Vector2.new(1, 2).y == 2 and Vector3int16.new(1, 2, 3).z == 3)
        assert(Vector3.FromNormalId(Enum.NormalId.Top) == Vector3.yAxis and Vector3.FromAxis('Z') == Vector3.zAxis)
        assert(not pcall(Vector3.FromNormalId, 55))
        assert(not pcall(function() return Vector3int16.new().Magnitude end))
        assert(Color3.new(1, 0, 0.5).b == 0.5 and Color3.toHSV(Color3.new(1, 0, 0)) == 0)
        local ray = Ray.new(Vector3.zero, Vector3.xAxis)
        assert(ray:ClosestPoint(Vector3.new(5, 3, 0)) == Vector3.new(5, 0, 0) and ray:Distance(Vector3.new(5, 3, 0)) == 3)",
    );
}

#[test]
fn frames_turn_about_axes_and_between_each_other() {
    check(
        "local frame = CFrame.new(1, 2, 3) * CFrame.Angles(0.3, 0.5, -0.2)
        assert(frame.p == frame.Position and frame.lookVector == frame.LookVector and frame:inverse() == frame:Inverse())
        for _, turned in {
            CFrame.Angles(math.pi, 0, 0), CFrame.Angles(0, math.pi, 0), CFrame.Angles(0, 0, math.pi), frame,
            CFrame.identity, CFrame.fromAxisAngle(Vector3.new(1, 1, 0), math.pi),
        } do
            local axis, angle = turned:ToAxisAngle()
            assert(CFrame.fromAxisAngle(axis, angle):FuzzyEq(turned.Rotation, 1e-4), tostring(turned))
        end
        local goal = CFrame.new(3, 2, 1) * CFrame.Angles(1, 0, 0)
        assert(frame:Lerp(goal, 1):FuzzyEq(goal, 1e-4) and frame:Lerp(goal, 0):FuzzyEq(frame))
        local half = CFrame.identity:Lerp(CFrame.new(2, 0, 0) * CFrame.Angles(0, 1, 0), 0.5)
        assert(half:FuzzyEq(CFrame.new(1, 0, 0) * CFrame.Angles(0, 0.5, 0)))
        assert(CFrame.lookAlong(Vector3.one, Vector3.xAxis).LookVector:FuzzyEq(Vector3.xAxis))
        assert(CFrame.fromEulerAngles(1, 2, 3) == CFrame.Angles(1, 2, 3))
        assert(not pcall(CFrame.fromEulerAngles, 1, 2, 3, Enum.RotationOrder.ZYX))",
    );
}

#[test]
fn a_constructor_that_is_not_there_is_named() {
    let printed = check(
        "for _, make in {
            function() return CFrame.fromCheese(1) end,
            function() return Color3.fromCheese(1) end,
            function() return BrickColor.palette(1) end,
        } do
            print(select(2, pcall(make)))
        end",
    );
    for (line, name) in
        printed.iter().zip(["CFrame.fromCheese", "Color3.fromCheese", "BrickColor.palette"])
    {
        assert!(line.ends_with(&format!("{name} is not emulated here")), "{line}");
    }
    assert_eq!(printed.len(), 3);
}
