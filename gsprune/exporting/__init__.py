"""From a network to a file that a device runs, checked against the network, with a contract beside it."""

from gsprune.exporting.export import ExportReport as ExportReport
from gsprune.exporting.export import export as export
