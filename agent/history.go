package agent

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// History returns the newest deployments that are on disk, at most n (0: all),
// the newest first. One whose record cannot be read is there with an Error.
func (a *Agent) History(n int) ([]Deployed, error) {
	r := a.Record()
	seen := map[string]*Deployed{}
	for _, d := range []*Deployment{r.Last, r.Deployment} {
		if out := d.Shown(); out != nil {
			seen[out.ID] = out
		}
	}
	entries, err := os.ReadDir(a.path("deployments"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	ids := []string{}
	for id := range seen {
		ids = append(ids, id)
	}
	for _, e := range entries {
		if id := e.Name(); seen[id] == nil && rootName.MatchString(id) {
			ids = append(ids, id)
		}
	}
	slices.SortFunc(ids, newestFirst)
	if n > 0 && len(ids) > n {
		ids = ids[:n]
	}
	out := []Deployed{}
	for _, id := range ids {
		if d := seen[id]; d != nil {
			out = append(out, *d)
			continue
		}
		out = append(out, *a.readDeployment(id))
	}
	return out, nil
}

// newestFirst orders names by their number, which may outgrow its six digits.
func newestFirst(x, y string) int {
	if len(x) != len(y) {
		return len(y) - len(x)
	}
	return strings.Compare(y, x)
}

// readDeployment reads what is kept of a deployment.
func (a *Agent) readDeployment(id string) *Deployed {
	b, err := os.ReadFile(a.path("deployments", id, "deployment.json"))
	d := new(Deployment)
	if err == nil {
		err = json.Unmarshal(b, d)
	}
	if err == nil && (d.ID != id || d.New.Configuration == nil) {
		err = errDamaged
	}
	if err != nil {
		return &Deployed{ID: id, Layers: []string{}, Verdict: "unknown", States: []Spent{}, Error: filepath.Join("deployments", id, "deployment.json") + ": " + reason(err)}
	}
	return d.Shown()
}
