"""A DICOM node: takes radiographs, and sends a report and the restored image to a peer."""

from jernih.dicom_node.node import DicomNode
from jernih.dicom_node.settings import NodeSettings, Peer, read_peer

__all__ = ["DicomNode", "NodeSettings", "Peer", "read_peer"]
