"""Seeds for selectors that draw."""


def drawing(selector, training, number=0):
    return {"seed": [5, number]} if selector.draws and training else {}
