"""One unit of work in this process: the sweep decides where and when, and calls it here.

    extracting.py         extract the features of a model
    heads.py              fit the heads of a block
    search.py             choose among the candidates of a block's heads
    taken_predictions.py  take over the predictions that models have already
    pairs.py              compare the predictions of a tile
    feature_pairs.py      compare the features of a tile
    stand_ins.py          fit heads that stand in for others, and compare them

What they share is beside them. A unit leaves its part, or its failure, in the output folder.
"""
