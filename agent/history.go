package agent

// History returns the newest deployments of which anything is kept, at most n (0:
// all), the newest first. One whose evidence cannot be read is there with an
// Error.
func (a *Agent) History(n int) ([]Deployed, error) {
	kept := OpenDeployments(a.o.Dir)
	ids, err := kept.IDs()
	if err != nil {
		return nil, err
	}
	if under := a.Record().Deployment; under != nil && (len(ids) == 0 || ids[0] != under.ID) { // it has left nothing yet
		ids = append([]string{under.ID}, ids...)
	}
	out := []Deployed{}
	for _, id := range ids {
		if n > 0 && len(out) == n {
			break
		}
		if kept.removal(id) {
			continue
		}
		e, err := kept.Evidence(id)
		if err != nil || e.Deployment.New.Configuration == nil {
			if err == nil {
				err = errDamaged
			}
			out = append(out, Deployed{ID: id, Layers: []string{}, Outcome: "unknown", States: []Spent{}, Error: reason(err)})
			continue
		}
		out = append(out, *e.Deployment.Shown())
	}
	return out, nil
}
