"""A gallery of identities: whose face is it?"""

import numpy as np


class Gallery:
    """The mean embedding of each identity, to tell whose face another one is.

    embeddings float32 [n e] of identities int32 [n].
    """

    def __init__(self, embeddings, identities):
        self.identities = np.unique(identities)
        means = [embeddings[identities == i].mean(0) for i in self.identities]
        self.means = np.stack([m / max(np.linalg.norm(m), 1e-6) for m in means])

    def nearest(self, embeddings):
        """Identity int32 [n] that is nearest to each of embeddings [n e]."""
        return self.identities[np.argmax(embeddings @ self.means.T, axis=1)]

    def similarity(self, embeddings, identities):
        """Cosine [n] of embeddings [n e], of length 1, to the means of identities [n]."""
        rows = np.searchsorted(self.identities, identities)
        return np.sum(embeddings * self.means[rows], axis=1)
