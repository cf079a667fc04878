package registry

import "deploytools/layers/digest"

// keeps returns the blobs that the version keeps from collection. Nothing but
// versions keeps blobs, and nothing else says which: what adds a reference, what
// takes it back and what checks them all asks here. A version that was imported
// without its content has no manifest.
func (v Version) keeps() []digest.Digest {
	if v.Manifest.IsZero() {
		return []digest.Digest{v.Digest}
	}
	return []digest.Digest{v.Digest, v.Manifest}
}

// referenced reports whether some version keeps the blob d.
func referenced(tx Tx, d digest.Digest) bool { return anyWith(tx, prefixRef+d.String()+"/") }
