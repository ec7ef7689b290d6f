return table.freeze({ START = 100, GIFT = 25 })
