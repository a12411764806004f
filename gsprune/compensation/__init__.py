"""Removal of channels without a dip: the consumers of removed channels predict them from the kept channels."""

from gsprune.compensation.reconstruction import Reconstruction as Reconstruction
