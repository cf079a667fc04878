package agent

import (
	"cmp"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"deploytools/atomic"
)

// deploymentIDs returns the names in a directory deployments/, newest first.
func deploymentIDs(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	var ids []string
	for _, e := range entries {
		if e.IsDir() && rootName.MatchString(e.Name()) {
			ids = append(ids, e.Name())
		}
	}
	slices.SortFunc(ids, newestFirst)
	return ids, err
}

// newestFirst orders names of deployments and roots by their number.
func newestFirst(x, y string) int {
	return cmp.Or(cmp.Compare(number(y), number(x)), cmp.Compare(y, x))
}

// number is what an id begins with.
func number(id string) uint64 {
	digits, _, _ := strings.Cut(id, "-")
	n, _ := strconv.ParseUint(digits, 10, 64)
	return n
}

// collectEvidence keeps the evidence of as many deployments as the options say,
// and of those that r needs.
func (a *Agent) collectEvidence(p *pace, r *Record) error {
	dir := a.path("deployments")
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	var all []error
	for _, e := range entries { // left by a collection that was cut short
		if id, ok := atomic.Staged(e.Name()); ok && rootName.MatchString(id) {
			all = append(all, p.removeTree(dir, e.Name()))
		}
	}
	ids, err := deploymentIDs(dir)
	all = append(all, err)
	needed := r.deployments()
	for _, id := range ids[min(len(ids), a.o.Keep.Evidence):] {
		if needed[id] || p.ctx.Err() != nil {
			continue
		}
		hidden, err := hide(dir, id)
		if err != nil {
			all = append(all, err)
			continue
		}
		all = append(all, p.removeTree(dir, hidden))
	}
	return errors.Join(all...)
}

// deployments are those on the record: under way, closed last, without evidence
// yet, and those that committed what serves and what would be gone back to.
func (r *Record) deployments() map[string]bool {
	ids := map[string]bool{}
	if r.Deployment != nil {
		ids[r.Deployment.ID] = true
	}
	for _, d := range r.unproven() {
		ids[d.ID] = true
	}
	for _, root := range []*Root{r.Live, r.Back} {
		if root != nil {
			ids[cmp.Or(root.By, filepath.Base(root.Dir))] = true
		}
	}
	return ids
}
