"""How each framework that published measurements trains: columns and notes → a `Case`."""
