"""Checkpoints: one safetensors file with JSON in its header, no pickle."""

from gsprune.checkpoint.checkpoint import load as load
from gsprune.checkpoint.checkpoint import save as save
