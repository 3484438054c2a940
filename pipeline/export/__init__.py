"""Weights out of here and into here: a durable bundle, and the formats of other libraries."""
