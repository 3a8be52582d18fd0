"""augforge: low-shot data augmentation and hallucination, with honest intervals on how much it helped."""

__version__ = "0.1.0"
