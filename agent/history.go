package agent

import (
	"fmt"
	"slices"
)

// History returns the newest deployments that are on disk, at most n (0: all),
// the newest first. One whose record cannot be read is there with an Error.
func (a *Agent) History(n int) ([]Deployed, error) {
	r := a.Record()
	ids, err := deploymentIDs(a.path("deployments"))
	if err != nil {
		return nil, err
	}
	seen := map[string]*Deployed{}
	for _, d := range []*Deployment{r.Last, r.Deployment} {
		if out := d.Shown(); out != nil {
			seen[out.ID] = out
			ids = append(ids, out.ID)
		}
	}
	slices.SortFunc(ids, newestFirst)
	ids = slices.Compact(ids)
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

// readDeployment reads what is kept of a deployment.
func (a *Agent) readDeployment(id string) *Deployed {
	e, err := OpenDeployments(a.o.Dir).Evidence(id)
	if err == nil && (e.Deployment.ID != id || e.Deployment.New.Configuration == nil) {
		err = fmt.Errorf("evidence of %s: %w", id, errDamaged)
	}
	if err != nil {
		return &Deployed{ID: id, Layers: []string{}, Verdict: "unknown", States: []Spent{}, Error: reason(err)}
	}
	return e.Deployment.Shown()
}
