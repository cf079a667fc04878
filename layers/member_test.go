package layers

import (
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"hash/crc32"
	"io"
	"slices"
	"strings"
	"testing"
)

// header returns a member's header with these flags.
func header(flags byte, name string) []byte {
	b := []byte{0x1f, 0x8b, 8, flags, 1, 2, 3, 4, 2, 3}
	if flags&flagExtra != 0 {
		b = append(b, 5, 0, 'X', 'Y', 1, 0, 'z')
	}
	if flags&flagName != 0 {
		b = append(append(b, name...), 0)
	}
	if flags&flagComment != 0 {
		b = append(append(b, "Kommentar \xe4"...), 0)
	}
	if flags&flagChecksum != 0 {
		b = binary.LittleEndian.AppendUint16(b, uint16(crc32.ChecksumIEEE(b)))
	}
	return b
}

// TestHeadersOfMembers compares every kind of header with the standard library,
// whole, cut at every byte, and with every byte changed.
func TestHeadersOfMembers(t *testing.T) {
	content := []byte("what is in it")
	first := gz([]byte("first, "))
	body := gz(content)[10:]
	check := func(b []byte, what string) {
		t.Helper()
		var want []byte
		r, wantErr := gzip.NewReader(bytes.NewReader(b))
		if wantErr == nil {
			want, wantErr = io.ReadAll(r)
		}
		got, err := gunzipWhole(b)
		if (err == nil) != (wantErr == nil) || err == nil && !bytes.Equal(got, want) || (err == io.ErrUnexpectedEOF) != (wantErr == io.ErrUnexpectedEOF) {
			t.Errorf("%s: %q, %v; want %q, %v", what, got, err, want, wantErr)
		}
	}
	for flags := range byte(32) {
		head := header(flags, "a name")
		for _, before := range [][]byte{nil, first} {
			whole := slices.Concat(before, head, body)
			check(whole, "whole")
			for i := range head {
				check(whole[:len(before)+max(1, i)], "cut")
				changed := bytes.Clone(whole)
				changed[len(before)+i] ^= 0x10
				check(changed, "changed")
			}
		}
	}
	for _, n := range []int{511, 512} {
		check(append(header(flagName, strings.Repeat("n", n)), body...), "long name")
	}
}
