"""Products and attention of few tokens in C++ for CPUs, for generation only: none has a gradient.

It is optional. `building` compiles the C++ files once with the machine's own compiler; without
one, or on a mesh of several devices, XLA does what it does anyway.
"""
