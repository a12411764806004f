"""Exports networks to files for deployment, compares their outputs, and writes a contract."""

from gsprune.exporting.exporter import ExportReport as ExportReport
from gsprune.exporting.exporter import export as export
