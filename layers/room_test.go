package layers

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"runtime"
	"strings"
	"testing"
)

// live returns how many bytes are in use.
func live() int64 {
	runtime.GC()
	runtime.GC() // pools are emptied by the second
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

func TestCheckAsksForWhatItTakes(t *testing.T) {
	const entries = 3000
	long := strings.Repeat("a", 200)
	for name, entry := range map[string]func(i int) []byte{
		"files":       func(i int) []byte { return head('0', fmt.Sprintf("d%03d/a-name-of-some-length-%07d", i/100, i)) },
		"directories": func(i int) []byte { return folder(fmt.Sprintf("d%03d/d%07d/", i/100, i)) },
		"long names": func(i int) []byte {
			return join(pax(fmt.Sprintf("path=%s/%s/%07d", long, long, i)), head('0', "x"))
		},
		"links": func(i int) []byte {
			return join(pax(fmt.Sprintf("linkpath=%s%s%s", long, long, long)), sym(fmt.Sprintf("%07d", i), "x"))
		},
		"links with large headers": func(i int) []byte {
			return join(pax("linkpath=x", "comment="+strings.Repeat("c", 1_000_000/(1+i))), sym(fmt.Sprintf("%07d", i), "x"))
		},
		"hard links": func(i int) []byte {
			if i%500 == 0 {
				return head('0', fmt.Sprintf("%07d", i))
			}
			return hard(fmt.Sprintf("%07d", i), fmt.Sprintf("%07d", i/500*500))
		},
		"directories without an entry": func(i int) []byte { return head('0', fmt.Sprintf("%07d/a/b/c/d/e/f", i)) },
	} {
		var b bytes.Buffer
		for i := range entries {
			b.Write(entry(i))
		}
		archive := tarball(b.Bytes())
		b = bytes.Buffer{}

		asked := int64(0)
		before := live()
		info, err := Check(t.Context(), name, bytes.NewReader(archive), Options{Room: func(bytes int64) error { asked += bytes; return nil }})
		if err != nil {
			t.Fatal(err)
		}
		taken := live() - before
		asked -= streamBytes()
		t.Logf("%s: bytes an entry: %d taken, asked for %d", name, taken/entries, asked/entries)
		if taken > asked || asked > 8*taken+roomPiece {
			t.Errorf("%s: %d bytes were asked for, and %d taken", name, asked, taken)
		}
		runtime.KeepAlive(archive)
		runtime.KeepAlive(info)
	}
}

func TestNoRoomEndsCheck(t *testing.T) {
	archive := tarball(bytes.Repeat(join(pax("path="+strings.Repeat("a/", 100)+"a"), head('0', "x")), 5000))
	errFull := errors.New("full")
	for granted := range 3 {
		calls := 0
		in := bytes.NewReader(archive)
		_, err := Check(t.Context(), "many", in, Options{Room: func(bytes int64) error {
			if bytes <= 0 {
				t.Errorf("asked for %d bytes", bytes)
			}
			if calls++; calls > granted {
				return errFull
			}
			return nil
		}})
		if !errors.Is(err, errFull) || errors.Is(err, ErrRefused) || calls != granted+1 {
			t.Errorf("Check = %v after %d calls, %d of which granted", err, calls, granted)
		}
		if left := in.Len(); granted == 0 && left != len(archive) {
			t.Errorf("%d bytes were read before the first room was given", len(archive)-left)
		}
	}
	if _, err := Check(t.Context(), "few", io.MultiReader(bytes.NewReader(tarball(head('0', "x")))), Options{Room: func(int64) error { return nil }}); err != nil {
		t.Errorf("Check = %v with room", err)
	}
}
