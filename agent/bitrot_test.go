package agent

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
)

// stored lists what an agent keeps and knows the content of, by kind.
func stored(h *host) map[string][]string {
	all := map[string][]string{"record": {"journal.json"}}
	for _, dir := range []string{"roots", "cache"} {
		must(filepath.WalkDir(filepath.Join(h.dir, dir), func(p string, e fs.DirEntry, err error) error {
			if err != nil || e.IsDir() {
				return err
			}
			name, kind := strings.TrimPrefix(p, h.dir+"/"), "file of a root"
			switch {
			case dir == "cache":
				kind = "cached layer"
			case strings.HasSuffix(name, ".json"):
				kind = "document of a root"
			case strings.HasSuffix(name, ".manifest"):
				kind = "manifest"
			}
			all[kind] = append(all[kind], name)
			return nil
		}))
	}
	return all
}

// One bit of each of 200 stored things flips: it is named, and what goes live
// afterwards, on the way forward and on the way back, is as it was packed.
func TestFlippedBits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHost(t, newFakeRegistry())
		var second []byte
		for n := range 3 {
			f := files{}
			for i := range 8 {
				f[fmt.Sprintf("d%d/f%d", i%3, i)] = strings.Repeat(fmt.Sprintf("%d of v%d,", i, n+1), 1+i*i*i)
			}
			v := fmt.Sprintf("v%d", n+1)
			if n == 1 {
				second = archive(f)
			}
			h.src.put(v, archive(f))
			h.want(v, nil)
		}
		things := stored(h)
		dice := rand.New(rand.NewPCG(1, 2))
		into := memoryDir(t)
		for i := range 200 {
			kind := []string{"record", "document of a root", "manifest", "cached layer", "file of a root"}[i%5]
			k := h.copied(filepath.Join(into, fmt.Sprint(i)))
			name := things[kind][dice.IntN(len(things[kind]))]
			flipOne(k.dir+"/"+name, dice)
			k.named(kind, name)
			k.survives(i%2 == 0, second, kind+" "+name)
			must(os.RemoveAll(k.dir))
			if t.Failed() {
				return
			}
		}
	})
}

func flipOne(file string, dice *rand.Rand) {
	b, err := os.ReadFile(file)
	must(err)
	b[dice.IntN(len(b))] ^= 1 << dice.IntN(8)
	must(os.WriteFile(file, b, 0o600))
}

// named asserts that Inspect names the damaged thing, and nothing else.
func (h *host) named(kind, name string) {
	h.Helper()
	found, err := Inspect(h.Context(), h.dir, Inspection{All: true})
	must(err)
	var b bytes.Buffer
	must(found.Text(&b))
	var wrong []string
	for line := range strings.Lines(b.String()) {
		if !strings.HasSuffix(line, ": whole\n") && !strings.HasPrefix(line, "looked at: ") {
			wrong = append(wrong, strings.TrimSpace(line))
		}
	}
	want := []string{name + ": "}
	switch kind {
	case "file of a root":
		root, path := name[:len("roots/000001-0123456789ab")], name[len("roots/000001-0123456789ab/"):]
		want = []string{root, "modified " + path + ": "}
	case "manifest":
		want = []string{strings.TrimSuffix(name, ".manifest")}
	}
	if found.Whole() || len(wrong) != len(want) {
		h.Errorf("%s %s: found %q, want %q", kind, name, wrong, want)
		return
	}
	for i, w := range want {
		if !strings.HasPrefix(wrong[i], w) {
			h.Errorf("%s %s: found %q, want %q", kind, name, wrong, want)
		}
	}
}

// survives deploys what fails, or what was live before, and asserts that what
// serves in the end is whole.
func (h *host) survives(back bool, layer []byte, what string) {
	h.Helper()
	want := error(nil)
	if back {
		h.src.put("v4", with(failVerify))
		want = ErrRolledBack
	} else {
		h.src.put("v2", layer) // it is cached
	}
	err := h.run()
	if !errors.Is(err, want) {
		h.Errorf("%s: Run = %v, want %v\n%s", what, err, want, h.logged)
	}
	found, err := Inspect(h.Context(), h.dir, Inspection{})
	must(err)
	live := h.live()
	if len(found.Roots) != 1 || !found.Roots[0].Whole() || live == "" || live == "v4" || !back && live != "v2" {
		h.Errorf("%s: %q is live in %+v\n%s", what, live, found.Roots, h.logged)
	}
}
