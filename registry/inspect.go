package registry

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"deploytools/layers/digest"
	"deploytools/registry/wire"
)

// inspection looks at every record of one snapshot.
type inspection struct {
	tx      Tx
	blobs   map[digest.Digest]int64 // those that are stored, with their sizes
	records int
	faults  []Fault
	lastSeq uint64
}

func newInspection(tx Tx, blobs map[digest.Digest]int64) *inspection {
	return &inspection{tx: tx, blobs: blobs}
}

// layout is every group of records, with what has to be true of one. rest is
// its key behind the prefix; the error says what is wrong.
var layout = []struct {
	prefix string
	check  func(i *inspection, rest string, value []byte) error
}{
	{keySeq, (*inspection).seq},
	{keyScrub, decodes[Scrubbed]},
	{prefixVersion, (*inspection).version},
	{prefixOrder, (*inspection).order},
	{prefixBlob, (*inspection).blob},
	{prefixRef, (*inspection).ref},
	{prefixDoomed, decodes[doom]},
	{prefixDamaged, (*inspection).damaged},
	{prefixConfig, (*inspection).config},
	{prefixRevision, (*inspection).revision},
	{prefixUpload, (*inspection).upload},
	{prefixReceived, (*inspection).received},
	{prefixDropDir, decodes[dropDir]},
	{keyChain, (*inspection).chain},
	{prefixAudit, (*inspection).entry},
	{prefixHold, decodes[Hold]},
	{prefixReport, (*inspection).report},
	{prefixOutput, ofReport[Output]},
	{prefixTold, ofReport[string]},
	{prefixSeen, decodes[sightings]},
}

// run returns how many records there are and what is wrong with them.
func (i *inspection) run() (records int, faults []Fault) {
	for key, value := range i.tx.Scan("") {
		i.records++
		if err := i.record(key, value); err != nil {
			i.fault(RecordFault, digest.Digest{}, doReport, "record %q: %v", key, err)
		}
	}
	if n, _, err := get[uint64](i.tx, keySeq); err == nil && n < i.lastSeq {
		i.fault(RecordFault, digest.Digest{}, doRestore, "record %q: it is %d, and %d was given out", keySeq, n, i.lastSeq)
	}
	for d := range i.blobs {
		if !referenced(i.tx, d) && !anyWith(i.tx, keyDoomed(d)) {
			i.fault(UnreferencedFault, d, doGC, "content %s: nothing refers to it", d)
		}
	}
	slices.SortStableFunc(i.faults, func(a, b Fault) int { return strings.Compare(string(a.Kind), string(b.Kind)) })
	return i.records, i.faults
}

func (i *inspection) record(key string, value []byte) error {
	for _, group := range layout {
		rest, ok := strings.CutPrefix(key, group.prefix)
		if ok && (rest == "" || strings.HasSuffix(group.prefix, "/")) {
			return group.check(i, rest, value)
		}
	}
	return errors.New("this program knows no such record")
}

func (i *inspection) fault(kind FaultKind, d digest.Digest, do, format string, args ...any) {
	i.faults = append(i.faults, Fault{Kind: kind, Digest: d, Text: fmt.Sprintf(format, args...), Do: do})
}

// decodes checks records that only have to be readable.
func decodes[T any](_ *inspection, _ string, value []byte) error {
	var v T
	return json.Unmarshal(value, &v)
}

func (i *inspection) seq(_ string, value []byte) error { return decodes[uint64](i, "", value) }

func (i *inspection) version(rest string, value []byte) error {
	var v Version
	if err := json.Unmarshal(value, &v); err != nil {
		return err
	}
	i.lastSeq = max(i.lastSeq, v.Seq)
	if err := errors.Join(wire.CheckName(v.Component), wire.CheckVersion(v.Version)); err != nil {
		return err
	}
	// What cannot be read is named as that record's own fault.
	order, _, _ := get[string](i.tx, keyOrder(v.Component, v.Seq))
	stored, _, _ := get[storedBlob](i.tx, keyBlob(v.Digest))
	switch {
	case rest != v.Component+"/"+v.Version:
		return fmt.Errorf("it names %s:%s", v.Component, v.Version)
	case v.Digest.IsZero():
		return errors.New("it has no digest")
	case order != v.Version:
		return fmt.Errorf("its place in the order, %d, belongs to %q", v.Seq, order)
	case !v.Manifest.IsZero() && stored != storedBlob{v.Size, v.Unpacked, v.Entries, v.Manifest}:
		return fmt.Errorf("the record of its content %s says something else", v.Digest)
	}
	for n, d := range v.keeps() {
		if !anyWith(i.tx, keyRef(d, v.Component, v.Version)) {
			i.fault(RecordFault, d, doRestore, "version %s: its reference to %s is missing", v.ref(), d)
		}
		// A mark says it already.
		if _, there := i.blobs[d]; !there && !isDamaged(i.tx, d) {
			i.fault(MissingFault, d, doUpload, "version %s: its %s %s is missing", v.ref(), [...]string{"content", "manifest"}[n], d)
		}
	}
	return nil
}

func (i *inspection) order(rest string, value []byte) error {
	var name string
	if err := json.Unmarshal(value, &name); err != nil {
		return err
	}
	component, seq, _ := strings.Cut(rest, "/")
	n, err := strconv.ParseUint(seq, 16, 64)
	if err != nil {
		return err
	}
	v, ok, err := get[Version](i.tx, keyVersion(component, name))
	if err == nil && (!ok || v.Seq != n) {
		err = fmt.Errorf("it belongs to %s:%s, which has no such place", component, name)
	}
	return err
}

// blob also has records of content that is doomed.
func (i *inspection) blob(rest string, value []byte) error {
	d, err := digest.Parse(rest)
	if err != nil {
		return err
	}
	var b storedBlob
	if err := json.Unmarshal(value, &b); err != nil {
		return err
	}
	if size, there := i.blobs[d]; there && size != b.Size && !isDamaged(i.tx, d) {
		i.fault(DamagedFault, d, "run fsck -read-data; then "+doUpload, "content %s: it has %d bytes of %d", d, size, b.Size)
	}
	if !referenced(i.tx, d) && !anyWith(i.tx, keyDoomed(d)) {
		return errors.New("no version refers to this content, and it is not doomed")
	}
	return nil
}

func (i *inspection) ref(rest string, _ []byte) error {
	part := strings.Split(rest, "/")
	if len(part) != 3 {
		return errors.New("its key has not three parts")
	}
	d, err := digest.Parse(part[0])
	if err != nil {
		return err
	}
	v, ok, err := get[Version](i.tx, keyVersion(part[1], part[2]))
	if err == nil && (!ok || !slices.Contains(v.keeps(), d)) {
		err = fmt.Errorf("version %s:%s does not have this content", part[1], part[2])
	}
	return err
}

func (i *inspection) damaged(rest string, value []byte) error {
	var m Damage
	if err := json.Unmarshal(value, &m); err != nil {
		return err
	}
	if m.Digest.String() != rest {
		return fmt.Errorf("it names %s", m.Digest)
	}
	if referenced(i.tx, m.Digest) {
		i.faults = append(i.faults, faultOf(i.tx, m.Digest, m.Reason))
	}
	return nil
}

// faultOf describes a blob that is damaged.
func faultOf(tx Tx, d digest.Digest, reason string) Fault {
	what := fmt.Sprintf("content %s", d)
	for key := range tx.Scan(prefixRef + d.String() + "/") {
		part := strings.Split(key, "/")
		what = fmt.Sprintf("version %s:%s: its content %s", part[2], part[3], d)
		break
	}
	return Fault{Kind: DamagedFault, Digest: d, Text: what + " is damaged and not served: " + reason, Do: doUpload}
}

func (i *inspection) config(rest string, value []byte) error {
	if rest == "" {
		return errors.New("its name is empty")
	}
	last, err := i.tx.Get(keyRevision(rest, i.numberOf(value)))
	if err == nil && string(last) != string(value) {
		err = errors.New("it differs from its newest revision")
	}
	if err != nil {
		return err
	}
	var rev Revision
	if err := json.Unmarshal(value, &rev); err != nil {
		return err
	}
	for n := uint64(1); n < rev.Revision; n++ {
		if !anyWith(i.tx, keyRevision(rest, n)) {
			return fmt.Errorf("its revision %d is missing", n)
		}
	}
	if rev.Deleted {
		return nil
	}
	for _, l := range rev.Layers {
		v, ok, err := get[Version](i.tx, keyVersion(l.Name, l.Version))
		if err != nil {
			return nil // that record's own fault
		}
		if !ok || v.Digest != l.Hash {
			i.fault(MissingFault, digest.Digest{}, "upload its file again and add it under this name, or give the configuration another version",
				"configuration %s: its layer %s:%s is missing", rev.Name, l.Name, l.Version)
		}
	}
	return nil
}

func (*inspection) numberOf(value []byte) uint64 {
	var rev Revision
	json.Unmarshal(value, &rev) // 0 where it cannot be read: no such revision
	return rev.Revision
}

func (i *inspection) revision(rest string, value []byte) error {
	var rev Revision
	if err := json.Unmarshal(value, &rev); err != nil {
		return err
	}
	if want := strings.TrimPrefix(keyRevision(rev.Name, rev.Revision), prefixRevision); rest != want {
		return fmt.Errorf("it names revision %d of %q", rev.Revision, rev.Name)
	}
	if !anyWith(i.tx, keyConfig(rev.Name)) {
		return errors.New("the record of its configuration is missing")
	}
	if !rev.Deleted {
		return rev.Check()
	}
	return wire.CheckName(rev.Name)
}

// chain checks the end of the audit log, and entry that each follows the one
// before.
func (i *inspection) chain(_ string, value []byte) error {
	var c chain
	if err := json.Unmarshal(value, &c); err != nil || c.Head == c.Cut {
		return err
	}
	return i.linked(c.Head, c.Hash)
}

func (i *inspection) linked(seq uint64, want digest.Digest) error {
	b, err := i.tx.Get(keyEntry(seq))
	if err == nil && (b == nil || digest.Of(b) != want) {
		err = fmt.Errorf("entry %d of the audit log is missing or was changed", seq)
	}
	return err
}

func (i *inspection) entry(rest string, value []byte) error {
	var e Entry
	if err := json.Unmarshal(value, &e); err != nil {
		return err
	}
	c, ok, _ := get[chain](i.tx, keyChain)
	switch {
	case prefixAudit+rest != keyEntry(e.Seq):
		return fmt.Errorf("it names entry %d", e.Seq)
	case !ok || e.Seq > c.Head:
		return errors.New("the end of the audit log does not know it")
	case e.Seq <= c.Cut+1:
		return nil
	}
	return i.linked(e.Seq-1, e.Prev)
}

func (i *inspection) upload(rest string, value []byte) error {
	var u UploadState
	if err := json.Unmarshal(value, &u); err != nil {
		return err
	}
	i.lastSeq = max(i.lastSeq, u.Seq)
	switch {
	case u.ID != rest:
		return fmt.Errorf("it names %q", u.ID)
	case u.Complete && !anyWith(i.tx, keyReceived(u.Digest, u.ID)):
		return fmt.Errorf("its record under the digest %s is missing", u.Digest)
	}
	return nil
}

func (i *inspection) received(rest string, _ []byte) error {
	d, id, _ := strings.Cut(rest, "/")
	u, ok, err := get[UploadState](i.tx, keyUpload(id))
	if err == nil && (!ok || u.Digest.String() != d) {
		err = errors.New("there is no such upload")
	}
	return err
}
