"""One file a verb: parse, call one function, hand the value to `output`."""
