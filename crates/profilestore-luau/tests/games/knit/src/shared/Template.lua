return { Points = 0, Badges = {}, Settings = { Music = true } }
