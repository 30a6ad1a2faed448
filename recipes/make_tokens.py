#!/usr/bin/env python3
"""Writes token ids for recipes/bert-per-layer.yaml: train.npy, train_labels.npy, test.npy, test_labels.npy in a directory.

    python3 recipes/make_tokens.py DIRECTORY [--train N] [--test N] [--seed S]

A sample is [CLS] segment [SEP] segment [SEP] [PAD]…, 32 ids of a vocabulary of 2000. Each segment has one to four words of one of four
topics, and half of them a stray word of another one, among words that mean nothing; the label is the topic of the first segment. So a
network has to know the words of a topic and in which segment they stand: which words occur at all says the label for one sample in two.
In one sample of eight the first segment has as many stray words as others, so that no network can be right about more than 96 %. Nothing
but Python's own library is used, and the same arguments give the same files.
"""
import argparse
import array
import os
import random

PAD, CLS, SEP, WORDS = 0, 1, 2, 3
VOCABULARY, LENGTH, TOPICS, TOPIC_WORDS = 2000, 32, 4, 50
FILLERS = range(WORDS + TOPICS * TOPIC_WORDS, VOCABULARY)


def segment(draw, topic, length):
    words = [draw.choice(FILLERS) for _ in range(length)]
    topics = [topic] * draw.randint(1, 4)
    if draw.random() < 0.5:
        topics.append(draw.choice([t for t in range(TOPICS) if t != topic]))
    for place, t in zip(draw.sample(range(length), len(topics)), topics):
        words[place] = WORDS + t * TOPIC_WORDS + draw.randrange(TOPIC_WORDS)
    return words


def sample(draw):
    first, second = draw.sample(range(TOPICS), 2)
    ids = [CLS, *segment(draw, first, draw.randint(5, 15)), SEP, *segment(draw, second, draw.randint(5, 14)), SEP]
    return ids + [PAD] * (LENGTH - len(ids)), first


def write_npy(path, values, shape):
    header = f"{{'descr': '<i4', 'fortran_order': False, 'shape': ({', '.join(map(str, shape))},), }}"
    header += " " * (-(len(header) + 11) % 64) + "\n"
    with open(path, "wb") as out:
        out.write(b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode())
        data = array.array("i", values)
        assert data.itemsize == 4
        out.write(data.tobytes())


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("directory")
    parser.add_argument("--train", type=int, default=8000)
    parser.add_argument("--test", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    os.makedirs(arguments.directory, exist_ok=True)
    for name, count in (("train", arguments.train), ("test", arguments.test)):
        draw = random.Random(f"{name} {arguments.seed}")
        samples = [sample(draw) for _ in range(count)]
        at = os.path.join(arguments.directory, name)
        write_npy(at + ".npy", [i for ids, _ in samples for i in ids], (count, LENGTH))
        write_npy(at + "_labels.npy", [label for _, label in samples], (count,))


if __name__ == "__main__":
    main()
