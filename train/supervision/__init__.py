"""What watches over a process of a run: signals that ask it to stop, deadlines, and its peers."""

from train.supervision.supervised import Supervision, supervised, supervision

__all__ = ["Supervision", "supervised", "supervision"]
