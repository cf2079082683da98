"""Files of other programs, read as data and within bounds: nothing in them is ever executed."""
