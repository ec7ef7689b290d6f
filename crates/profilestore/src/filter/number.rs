//! Numbers of JSON, compared by what is written: no digit is lost, however many there are.

use std::cmp::Ordering;

/// A number as `0.DIGITS` times ten to a power. The digits have no zero at either end, so equal
/// numbers are equal field by field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Decimal {
    /// False for zero.
    negative: bool,
    /// None for zero.
    digits: String,
    power: i64,
}

/// Beyond this an exponent makes no difference: no text is so long.
const FAR: i64 = i64::MAX / 4;

impl Decimal {
    /// Reads a number as JSON writes it.
    pub(super) fn of(text: &str) -> Self {
        let (negative, text) = match text.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        let (mantissa, exponent) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let all = format!("{whole}{fraction}");
        let significant = all.trim_start_matches('0');
        let digits = significant.trim_end_matches('0').to_owned();
        if digits.is_empty() {
            return Self { negative: false, digits, power: 0 };
        }
        let leading_zeros = (all.len() - significant.len()) as i64;
        let power = whole.len() as i64 - leading_zeros + exponent_of(exponent);
        Self { negative, digits, power }
    }
}

fn exponent_of(text: &str) -> i64 {
    match text.parse::<i64>() {
        Ok(exponent) => exponent.clamp(-FAR, FAR),
        // It has more digits than 64 bits hold.
        Err(_) if text.starts_with('-') => -FAR,
        Err(_) => FAR,
    }
}

impl Ord for Decimal {
    fn cmp(&self, other: &Self) -> Ordering {
        let sign = |number: &Self| match (number.digits.is_empty(), number.negative) {
            (true, _) => 0,
            (false, true) => -1,
            (false, false) => 1,
        };
        let size = || self.power.cmp(&other.power).then_with(|| self.digits.cmp(&other.digits));
        sign(self).cmp(&sign(other)).then_with(|| match self.negative {
            false => size(),
            true => size().reverse(),
        })
    }
}

impl PartialOrd for Decimal {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
