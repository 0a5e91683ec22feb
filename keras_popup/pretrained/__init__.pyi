from .cards import Card as Card
from .cards import find_ticket as find_ticket
from .cards import list_networks as list_networks
from .cards import read_card as read_card
from .loading import load as load

__all__ = ["Card", "find_ticket", "list_networks", "load", "read_card"]
