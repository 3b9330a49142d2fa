"""JSON Schemas: which ones are allowed, what a grammar and a validator make of them, and the Arrow types of answers."""
