package keys

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// Revoked is a list of what counts no more, whatever the keys files say. The
// zero value and nil list nothing.
type Revoked struct {
	keys    map[string]bool // by fingerprint; authorities too
	ids     map[string]bool // of certificates
	serials []serials       // likewise
}

type serials struct{ from, to uint64 }

// binaryList is how the list starts that ssh-keygen -k makes.
const binaryList = "SSHKRL\n\x00"

// ParseRevoked reads a list: a line each, as ssh-keygen(1) has it in what it
// makes a key revocation list of.
//
//	SHA256:...  or  hash: SHA256:...    the key with this fingerprint
//	TYPE BASE64  or  key: TYPE BASE64   this key
//	serial: 7  or  serial: 7-12         certificates with these serial numbers
//	id: TEXT                            certificates with this ID
//
// Revoking a key revokes its certificates, and those that it has signed.
//
// The lines that were not understood are returned beside the list of the others,
// which still counts.
func ParseRevoked(data []byte) (*Revoked, []LineError) {
	r := &Revoked{keys: map[string]bool{}, ids: map[string]bool{}}
	if bytes.HasPrefix(data, []byte(binaryList)) {
		return r, []LineError{{1, "is a key revocation list in OpenSSH's binary format: give the text that it was made of"}}
	}
	var bad []LineError
	for n, text := range lines(data) {
		if err := r.add(text); err != nil {
			bad = append(bad, LineError{n, err.Error()})
		}
	}
	return r, bad
}

func (r *Revoked) add(text string) error {
	what, value, named := strings.Cut(text, ":")
	value = strings.TrimSpace(value)
	switch what = strings.TrimSpace(what); {
	case what+":" == fingerprintStart:
		return r.addFingerprint(text)
	case named && what == "hash":
		return r.addFingerprint(value)
	case named && (what == "key" || what == "sha256" || what == "sha1"):
		return r.addKey(value)
	case named && what == "serial":
		return r.addSerials(value)
	case named && what == "id" && value != "":
		r.ids[value] = true
		return nil
	case isType(text):
		return r.addKey(text)
	}
	return errors.New("should be a fingerprint, a key, serial: NUMBER or id: TEXT")
}

func (r *Revoked) addFingerprint(text string) error {
	encoded, ok := strings.CutPrefix(text, fingerprintStart)
	sum, err := base64.RawStdEncoding.DecodeString(strings.TrimRight(encoded, "="))
	if !ok || err != nil || len(sum) != 32 {
		return fmt.Errorf("fingerprint %q: should be SHA256: and 43 characters, as ssh-keygen -l prints it", printable(text))
	}
	r.keys[fingerprintStart+base64.RawStdEncoding.EncodeToString(sum)] = true
	return nil
}

func (r *Revoked) addKey(text string) error {
	kind, rest := cutWord(text)
	blob, _, err := parseKey(kind, rest)
	if err != nil {
		return err
	}
	r.keys[Fingerprint(blob)] = true
	return nil
}

func (r *Revoked) addSerials(text string) error {
	low, high, isRange := strings.Cut(text, "-")
	if !isRange {
		high = low
	}
	from, err := strconv.ParseUint(strings.TrimSpace(low), 10, 64)
	to, err2 := strconv.ParseUint(strings.TrimSpace(high), 10, 64)
	// A certificate without a number of its own has 0.
	if err != nil || err2 != nil || from == 0 || from > to {
		return fmt.Errorf("serial %q: should be a number from 1, or two with a dash between them", printable(text))
	}
	r.serials = append(r.serials, serials{from, to})
	return nil
}

// Key reports whether the key with this fingerprint is revoked.
func (r *Revoked) Key(fingerprint string) bool { return r != nil && r.keys[fingerprint] }

// Certificate reports whether certificates with this serial number or this ID
// are revoked. Whether their keys are is another question: Key.
func (r *Revoked) Certificate(serial uint64, id string) bool {
	return r != nil && (r.ids[strings.TrimSpace(id)] ||
		slices.ContainsFunc(r.serials, func(s serials) bool { return s.from <= serial && serial <= s.to }))
}

// Plus returns what either list revokes.
func (r *Revoked) Plus(o *Revoked) *Revoked {
	out := &Revoked{keys: map[string]bool{}, ids: map[string]bool{}}
	for _, list := range []*Revoked{r, o} {
		if list == nil {
			continue
		}
		maps.Copy(out.keys, list.keys)
		maps.Copy(out.ids, list.ids)
		out.serials = append(out.serials, list.serials...)
	}
	return out
}

// Len returns how many entries there are.
func (r *Revoked) Len() int {
	if r == nil {
		return 0
	}
	return len(r.keys) + len(r.ids) + len(r.serials)
}
