"""The random generator of the kernels in plain Python, written from the publications.

SplitMix64 (Steele et al. 2014) for the state, xoshiro256++ (Blackman and Vigna 2018), and Lemire's bounded
integers (2019).
"""

MASK = 2**64 - 1
GOLDEN = 0x9E3779B97F4A7C15


def mix(word):
    word = ((word ^ (word >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    word = ((word ^ (word >> 27)) * 0x94D049BB133111EB) & MASK
    return word ^ (word >> 31)


def fold(words, key=0):
    for word in words:
        key = mix(((key ^ (word & MASK)) + GOLDEN) & MASK)
    return key


def rotate(word, bits):
    return ((word << bits) | (word >> (64 - bits))) & MASK


class Generator:
    def __init__(self, seed, stage, epoch, index):
        key = fold([seed, stage, epoch, index])
        self.state = [mix((key + GOLDEN * position) & MASK) for position in range(1, 5)]

    def word(self):
        a, b, c, d = self.state
        result = (rotate((a + d) & MASK, 23) + a) & MASK
        c, d = c ^ a, d ^ b
        b, a = b ^ c, a ^ d
        self.state = [a, b, c ^ (self.state[1] << 17 & MASK), rotate(d, 45)]
        return result

    def below(self, bound):
        while True:
            product = self.word() * bound
            # A smaller low half is rejected: it would make some results too likely.
            if (product & MASK) >= (2**64 - bound) % bound:
                return product >> 64

    def uniform(self):
        return (self.word() >> 11) / 2**53

    def happens(self, share):
        return share >= 1 or (share > 0 and self.uniform() < share)

    def shuffle(self, values):
        for last in range(len(values) - 1, 0, -1):
            other = self.below(last + 1)
            values[last], values[other] = values[other], values[last]

    def outside(self, row, num_items):
        """Draw one of the items that are not in the row, by its rank among them."""
        rank = self.below(num_items - len(set(row)))
        for item in sorted(set(row)):
            if item <= rank:
                rank += 1
        return rank
