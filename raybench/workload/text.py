"""Synthetic text of a wanted length: plain words at random, one word for each token wanted.

The words are common enough that the usual tokenizers give each, with the space before it, one token. How
many tokens a text really is, only the server's tokenizer can say: lengths are approximate, and the server's
usage is what reports count.
"""

from __future__ import annotations

import numpy as np

from raybench.workload.draws import TEXT, Draws

# Whose text it is: the second part of the stream's key.
PROMPT, PREFIX, ANSWER, TRACE, BLOCK = range(5)

_PLAIN = """
the of and to in is that for it as was with be by on not he his but at are this have from or had an they
which one you were her all she there would their we him been has when who will more no if out so said
what up its about into than them can only other new some could time these two may then do first any my
now such like our over man me even most made after also did many before must through back years where
much your way well down should because each just those people how too little state good very make world
still own see men work long get here between both life being under never day same another know while last
might us great old year off come since against go came right used take three small house place water left
side head part point city few case week number hand high door room body group form light table land line
power town fact word paper green blue river north south morning night summer winter family story market
music school street window garden letter friend mother father child road field stone bridge ship engine
signal silver copper yellow purple orange mountain island forest village kitchen dinner doctor teacher
soldier farmer captain history science nature culture picture question answer reason moment minute hour
month season weather cloud storm rain snow fire glass metal cotton
"""
WORDS = np.array(_PLAIN.split())


def text(seed: int, kind: int, number: int, tokens: int) -> str:
    """About `tokens` tokens of words: the same for the same seed, kind and number, different for others.
    A longer text begins with the shorter one.
    """
    return " ".join(WORDS[Draws(seed, TEXT, kind, number).below(tokens, len(WORDS))].tolist())
