"""Trains on several devices and workers: finds them, starts them, and reports their loss.

Tried on a CPU that is divided into several devices, and on several processes of one machine. It never ran on GPUs, nor
on several machines: docs/distributed.md.
"""

from keras_popup.distribution.placement import Cluster, Placement, find_devices, loss_of_workers, place
from keras_popup.distribution.replicated import check_same_everywhere as check_same_everywhere
from keras_popup.distribution.replicated import evaluator as evaluator
from keras_popup.distribution.replicated import fit as fit
from keras_popup.distribution.replicated import prepare as prepare
from keras_popup.distribution.replicated import take_from_worker_0 as take_from_worker_0
from keras_popup.distribution.replicated import wait_for_all as wait_for_all

__all__ = ["Cluster", "Placement", "find_devices", "loss_of_workers", "place"]
