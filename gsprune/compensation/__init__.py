"""Removal of channels without a dip: the consumers of removed channels read them off the channels that stay."""

from gsprune.compensation.reconstruction import Reconstruction as Reconstruction
