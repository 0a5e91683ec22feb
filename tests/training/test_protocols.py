"""The papers' values for what is not given."""

from keras_popup.training import RunConfig, config


def test_protocol_fills_in_what_is_not_given():
    conv4 = RunConfig(model="conv4").with_protocol()
    assert (conv4.optimizer, conv4.learning_rate, conv4.momentum, conv4.l2) == ("sgd", 0.1, 0.9, 1e-4)
    assert (conv4.epochs, conv4.batch_size, conv4.schedule, conv4.warmup_epochs) == (100, 128, "cosine", 0)
    assert RunConfig(model="conv4", method="dense").with_protocol().learning_rate == 0.01
    adam = RunConfig(model="conv4", method="dense", optimizer="adam").with_protocol()
    assert (adam.learning_rate, adam.batch_size, adam.schedule, adam.l2) == (3e-4, 60, "constant", 0.0)
    resnet18 = RunConfig(model="resnet18").with_protocol()
    assert (resnet18.batch_size, resnet18.l2, resnet18.learning_rate) == (256, 5e-4, 0.1)
    resnet50 = RunConfig(model="resnet50").with_protocol()
    assert (resnet50.learning_rate, resnet50.momentum, resnet50.l2) == (0.256, 0.875, 3.05e-5)
    assert (resnet50.warmup_epochs, resnet50.label_smoothing) == (5, 0.1)
    assert RunConfig(model="conv4", learning_rate=0.7, l2=0.0).with_protocol().l2 == 0.0
    assert set(config.PROTOCOLS["conv4"]) == {"edge-popup", "supermask", "random", "dense", "finetune"}
    supermask = RunConfig(model="conv4", method="supermask").with_protocol()
    assert (supermask.learning_rate, supermask.l2, supermask.selector) == (50.0, 0.0, "bernoulli")
    assert RunConfig(model="conv4", selector="bernoulli").with_protocol().learning_rate == 50.0
