"""Tickets: files that hold a trained network as its seed and its mask, in about one bit per weight or less."""

from keras_popup.tickets.api import load_ticket, pack_info, save_ticket, ticket_info, verify_ticket
from keras_popup.tickets.base import Base as Base
from keras_popup.tickets.base import load_base as load_base
from keras_popup.tickets.file_format import MAX_BYTES, TicketError
from keras_popup.tickets.info import PackInfo, TicketInfo, TicketRow
from keras_popup.tickets.size import DENSE as DENSE
from keras_popup.tickets.size import SPARSE as SPARSE
from keras_popup.tickets.size import BudgetError as BudgetError
from keras_popup.tickets.size import TicketSize as TicketSize
from keras_popup.tickets.task_masks import TaskMasks

__all__ = [
    "MAX_BYTES",
    "PackInfo",
    "TaskMasks",
    "TicketError",
    "TicketInfo",
    "TicketRow",
    "load_ticket",
    "pack_info",
    "save_ticket",
    "ticket_info",
    "verify_ticket",
]
