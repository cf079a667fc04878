package agent

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"deploytools/layers/digest"
	"deploytools/layers/manifest"
)

// invariants asserts what must be true of a host whose agent came to rest.
func (h *host) invariants() {
	h.Helper()
	r, err := h.agent.load()
	if err != nil || r == nil {
		h.Fatalf("no record: %v", err)
	}
	if r.State != Idle && r.State != Broken {
		h.Errorf("I2: came to rest in %s", r.State)
	}
	link, err := h.agent.link()
	must(err)
	switch {
	case r.Live == nil && link != "" && r.State == Idle:
		h.Errorf("I1: `current` names %s, and nothing is live", link)
	case r.Live != nil && link != r.Live.Dir && r.State == Idle && r.Hold == nil:
		h.Errorf("I1: `current` names %s, and %s is live", link, r.Live.Dir)
	}
	for _, root := range []*Root{r.Live, r.Back} {
		if root == nil {
			continue
		}
		if root.Committed.IsZero() {
			h.Errorf("I3: %s is not committed", root.Dir)
		}
		if _, err := os.Stat(h.dir + "/" + root.Dir); err != nil {
			h.Errorf("I7: %v", err)
		}
	}
	h.complete()
	h.proven(r.Last)
	if serving, _ := os.ReadFile(h.dir + "/serving"); r.State == Idle && r.Live != nil && h.o.Hook.Script != "" &&
		r.Hold == nil && string(serving) != filepath.Base(r.Live.Dir) {
		h.Errorf("I2: %q serves, and %s is live", serving, r.Live.Dir)
	}
	if r.Live != nil && r.Live.Verification == Verified && r.State == Idle && h.env == nil {
		if has(h.dir+"/"+r.Live.Dir, failVerify) == 1 || has(h.dir+"/"+r.Live.Dir, failHook) == 1 {
			h.Error("I10: a bad root is shown as verified")
		}
	}
	if r.Last != nil && r.Last.New.Configuration.Revision > 0 && (r.Last.Verdict == Bad) != slices.ContainsFunc(r.Marks, func(m Mark) bool { return m.Digest == r.Last.New.Configuration.Digest }) {
		h.Errorf("I4: verdict %q, marks %v", r.Last.Verdict, r.Marks)
	}
}

// proven asserts that the deployment that ended last has its evidence, whole.
func (h *host) proven(d *Deployment) {
	h.Helper()
	if d == nil {
		return
	}
	b, err := os.ReadFile(h.dir + "/deployments/" + d.ID + "/" + evidenceName)
	if err != nil {
		h.Errorf("no evidence: %v", err)
		return
	}
	var e Evidence
	if err := json.Unmarshal(b, &e); err != nil {
		h.Errorf("evidence of %s: %v\n%s", d.ID, err, b)
		return
	}
	got, err := json.Marshal(e.Deployment)
	must(err)
	want, err := json.Marshal(d)
	must(err)
	if !bytes.Equal(got, want) || e.Outcome != d.Outcome() || len(e.States) != len(d.Events) {
		h.Errorf("evidence of %s is about another deployment:\n%s\nwant\n%s", d.ID, got, want)
	}
	for _, p := range e.Programs {
		info, err := os.Stat(h.dir + "/deployments/" + d.ID + "/" + p.Label + ".output")
		if err != nil || info.Size() != p.Output || p.Output == 0 {
			h.Errorf("evidence of %s: %s has printed %d bytes, but %v, %v", d.ID, p.Label, p.Output, info, err)
		}
	}
}

// complete compares every root that has a name with its manifest.
func (h *host) complete() {
	h.Helper()
	entries, err := os.ReadDir(h.dir + "/roots")
	must(err)
	for _, e := range entries {
		if !e.IsDir() || strings.HasPrefix(e.Name(), ".") {
			continue
		}
		dir := h.dir + "/roots/" + e.Name()
		f, err := os.Open(dir + ".manifest")
		if err != nil {
			h.Errorf("I6: %s has no manifest: %v", e.Name(), err)
			continue
		}
		m, err := manifest.Decode(f)
		must(err)
		f.Close()
		var have []string
		filepath.WalkDir(dir, func(p string, e os.DirEntry, err error) error {
			if p != dir {
				have = append(have, strings.TrimPrefix(p, dir+"/"))
			}
			return err
		})
		var want []string
		for _, e := range m {
			want = append(want, e.Path)
			if b, err := os.ReadFile(dir + "/" + e.Path); e.Type == manifest.File && (err != nil || digest.Of(b) != e.Digest) {
				h.Errorf("I1: %s/%s: %v, or another content", dir, e.Path, err)
			}
		}
		slices.Sort(have)
		if !slices.Equal(have, want) {
			h.Errorf("I1: %s holds %q, want %q", dir, have, want)
		}
	}
}
