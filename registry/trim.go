package registry

// surplus returns the versions of component, the oldest first, beyond the newest
// Options.MaxVersions that no configuration needs, now or to be rolled back.
func (r *Registry) surplus(tx Tx, component string) ([]Version, error) {
	if r.o.MaxVersions <= 0 {
		return nil, nil
	}
	versions, err := versionsIn(tx, component)
	if err != nil || len(versions) <= r.o.MaxVersions {
		return nil, err
	}
	needed, err := r.neededOf(tx, component)
	if err != nil {
		return nil, err
	}
	var out []Version
	for _, v := range versions[:len(versions)-r.o.MaxVersions] {
		if _, ok := needed[v.Version]; !ok {
			out = append(out, v)
		}
	}
	return out, nil
}

// trim removes what surplus returns, or the oldest most of it.
func (r *Registry) trim(tx Tx, component string, most int) ([]Version, error) {
	gone, err := r.surplus(tx, component)
	if err != nil {
		return nil, err
	}
	gone = gone[:min(len(gone), most)]
	for _, v := range gone {
		if err := r.eraseVersion(tx, v); err != nil {
			return nil, err
		}
	}
	return gone, nil
}
