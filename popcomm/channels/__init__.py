"""What passes between agents: kinds of message, who hears whom, and delivery."""

from popcomm.channels.kinds import message_kind
from popcomm.channels.links import Links
from popcomm.channels.mailbox import Channel, Inbox, PostedInbox, RoutedInbox, deliver
from popcomm.channels.messages import MessageKind, Symbols, Vectors
from popcomm.channels.topology import (
    Chain,
    Curriculum,
    Custom,
    Full,
    KNearest,
    Learned,
    Ring,
    Routed,
    Topology,
    make_topology,
)
from popcomm.channels.words import Words

__all__ = [
    "Chain",
    "Channel",
    "Curriculum",
    "Custom",
    "Full",
    "Inbox",
    "KNearest",
    "Learned",
    "Links",
    "MessageKind",
    "PostedInbox",
    "Ring",
    "Routed",
    "RoutedInbox",
    "Symbols",
    "Topology",
    "Vectors",
    "Words",
    "deliver",
    "make_topology",
    "message_kind",
]
