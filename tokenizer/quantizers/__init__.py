"""Quantizers: continuous vectors at each position to codes and back, one file each under one
contract."""
