package registry

import (
	"encoding/json"
	"fmt"

	"deploytools/layers/digest"
)

// The layout of Meta. Names hold no slash, so a prefix that ends in one is
// exactly one group. Numbers are 16 hexadecimal digits: byte order is theirs.
//
//	seq                          the last sequence number given
//	version/COMPONENT/VERSION    Version
//	order/COMPONENT/SEQ          name of the version with this sequence number
//	blob/DIGEST                  storedBlob: a checked layer that is in Blobs
//	ref/DIGEST/COMPONENT/VERSION empty: the version is kept in this blob
//	doomed/DIGEST                doom: collect the blob when nothing took it back
//	damaged/DIGEST               damage: the blob is not served
//	scrub                        Scrubbed: how far looking at the blobs has come
//	config/NAME                  Revision: the newest one, deleted or not
//	revision/NAME/REVISION       Revision
//	audit/SEQ                    Entry
//	chain                        chain: the ends of the audit log
//	hold/NAME                    Hold of a configuration, over or not
//	report/HOST/CONFIG/INSTANCE  reported: what an agent told last
//	output/HOST/CONFIG/INSTANCE  Output: what its programs printed
//	told/HOST/CONFIG/INSTANCE    tag of that report, while this registry has all of it
//	seen/SHARD                   sightings: when agents were last heard of
//	upload/ID                    UploadState
//	received/DIGEST/ID           empty: the upload is complete and has this digest
//	dropdir/HASH                 dropDir: a directory in a drop box; of key and path
const (
	keySeq         = "seq"
	keyScrub       = "scrub"
	keyChain       = "chain"
	prefixVersion  = "version/"
	prefixOrder    = "order/"
	prefixBlob     = "blob/"
	prefixRef      = "ref/"
	prefixDoomed   = "doomed/"
	prefixDamaged  = "damaged/"
	prefixConfig   = "config/"
	prefixRevision = "revision/"
	prefixAudit    = "audit/"
	prefixHold     = "hold/"
	prefixReport   = "report/"
	prefixOutput   = "output/"
	prefixTold     = "told/"
	prefixSeen     = "seen/"
	prefixUpload   = "upload/"
	prefixReceived = "received/"
	prefixDropDir  = "dropdir/"
)

func keyVersion(component, version string) string { return prefixVersion + component + "/" + version }
func keyOrder(component string, seq uint64) string {
	return fmt.Sprintf("%s%s/%016x", prefixOrder, component, seq)
}
func keyBlob(d digest.Digest) string    { return prefixBlob + d.String() }
func keyDoomed(d digest.Digest) string  { return prefixDoomed + d.String() }
func keyDamaged(d digest.Digest) string { return prefixDamaged + d.String() }
func keyRef(d digest.Digest, component, version string) string {
	return prefixRef + d.String() + "/" + component + "/" + version
}
func keyConfig(name string) string { return prefixConfig + name }
func keyRevision(name string, n uint64) string {
	return fmt.Sprintf("%s%s/%016x", prefixRevision, name, n)
}
func keyEntry(seq uint64) string                    { return fmt.Sprintf("%s%016x", prefixAudit, seq) }
func keyHold(name string) string                    { return prefixHold + name }
func keyUpload(id string) string                    { return prefixUpload + id }
func keyReceived(d digest.Digest, id string) string { return prefixReceived + d.String() + "/" + id }

// get reads the record at key; false when there is none.
func get[T any](tx Tx, key string) (T, bool, error) {
	var v T
	b, err := tx.Get(key)
	if err != nil || b == nil {
		return v, false, err
	}
	v, err = decode[T](key, b)
	return v, err == nil, err
}

func decode[T any](key string, b []byte) (T, error) {
	var v T
	if err := json.Unmarshal(b, &v); err != nil {
		return v, fmt.Errorf("internal error: record %q cannot be read: %w", key, err)
	}
	return v, nil
}

// put writes v at key.
func put(tx Tx, key string, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return tx.Put(key, b)
}

// nextSeq gives out the next number of the one sequence that orders versions
// and uploads.
func nextSeq(tx Tx) (uint64, error) {
	n, _, err := get[uint64](tx, keySeq)
	if err != nil {
		return 0, err
	}
	n++
	return n, put(tx, keySeq, n)
}

// anyWith reports whether some key starts with prefix.
func anyWith(tx Tx, prefix string) bool {
	for range tx.Scan(prefix) {
		return true
	}
	return false
}
