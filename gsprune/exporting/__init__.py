"""From a network to a file that a device runs, checked against the network, with a contract beside it."""

from gsprune.exporting.exporter import ExportReport as ExportReport
from gsprune.exporting.exporter import export as export
