package agent

import (
	"archive/tar"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"deploytools/registry/wire"
)

// Deployments reads the evidence below an agent's directory. It takes no lock
// and changes nothing: it does not matter whether an agent runs. Its methods are
// safe for concurrent use.
type Deployments struct{ dir string }

// OpenDeployments returns the deployments of the agent's directory dir.
func OpenDeployments(dir string) *Deployments { return &Deployments{dir} }

func (s *Deployments) path(parts ...string) string {
	return filepath.Join(append([]string{s.dir, "deployments"}, parts...)...)
}

// IDs returns the deployments of which there is anything, newest first.
func (s *Deployments) IDs() ([]string, error) { return deploymentIDs(s.path()) }

// Find returns the deployment whose number prefix is, or else the newest whose
// id begins with prefix; "": the newest that is more than a removal's script. The error wraps wire.ErrNotFound.
func (s *Deployments) Find(prefix string) (string, error) {
	ids, err := s.IDs()
	if err != nil {
		return "", err
	}
	if n, err := strconv.ParseUint(prefix, 10, 64); err == nil {
		if i := slices.IndexFunc(ids, func(id string) bool { return number(id) == n }); i >= 0 {
			return ids[i], nil
		}
	}
	if i := slices.IndexFunc(ids, func(id string) bool { return strings.HasPrefix(id, prefix) && !(prefix == "" && s.removal(id)) }); i >= 0 {
		return ids[i], nil
	}
	if prefix == "" {
		return "", fmt.Errorf("%s: nothing was deployed: %w", s.dir, wire.ErrNotFound)
	}
	return "", fmt.Errorf("deployment %q: %w", prefix, wire.ErrNotFound)
}

// removal reports whether all that there is of id is the remove script of a
// removal, which was no deployment.
func (s *Deployments) removal(id string) bool {
	if _, err := os.Lstat(s.path(id, evidenceName)); err == nil || s.recorded(id) != nil {
		return false
	}
	all, _ := os.ReadDir(s.path(id)) // what cannot be read is told of by others
	return len(all) > 0 && !slices.ContainsFunc(all, func(e fs.DirEntry) bool { return !strings.HasPrefix(e.Name(), leaveLabel+".") })
}

// FindOutput is Find among those whose programs have printed anything in the
// phase; "": in any.
func (s *Deployments) FindOutput(prefix, phase string) (string, error) {
	if prefix != "" {
		return s.Find(prefix)
	}
	ids, err := s.IDs()
	if err != nil {
		return "", err
	}
	for _, id := range ids {
		if len(s.Programs(id, phase)) > 0 {
			return id, nil
		}
	}
	return "", fmt.Errorf("%s: no program was run: %w", s.dir, wire.ErrNotFound)
}

// Evidence returns the evidence of a deployment: as it was written at its end,
// or, where that is still to come, as it would be written now. The error wraps
// wire.ErrNotFound where neither can be had.
func (s *Deployments) Evidence(id string) (*Evidence, error) {
	b, err := os.ReadFile(s.path(id, evidenceName))
	if errors.Is(err, fs.ErrNotExist) {
		if d := s.recorded(id); d != nil {
			return makeEvidence(s.path(id), d), nil
		}
		return nil, fmt.Errorf("evidence of %s: %w", id, wire.ErrNotFound)
	}
	if err != nil {
		return nil, err
	}
	e := new(Evidence)
	if err := json.Unmarshal(b, &struct{ Format *int }{&e.Format}); err == nil && e.Format > evidenceFormat {
		return nil, fmt.Errorf("evidence of %s: format %d, known is %d: %w", id, e.Format, evidenceFormat, errNewer)
	}
	if err := json.Unmarshal(b, e); err != nil {
		return nil, fmt.Errorf("evidence of %s: %w: %w", id, errDamaged, err)
	}
	return e, nil
}

// recorded returns the deployment from the agent's record, if it is there.
func (s *Deployments) recorded(id string) *Deployment {
	r, err := readRecord(filepath.Join(s.dir, "journal.json"))
	if err != nil || r == nil {
		return nil
	}
	all := r.unproven()
	if r.Deployment != nil {
		all = append(all, r.Deployment)
	}
	if i := slices.IndexFunc(all, func(d *Deployment) bool { return d.ID == id }); i >= 0 {
		return all[i]
	}
	return nil
}

// UnderWay reports whether the deployment goes on, and may run a program yet.
func (s *Deployments) UnderWay(id string) bool {
	r, err := readRecord(filepath.Join(s.dir, "journal.json"))
	return err == nil && r != nil && r.Deployment != nil && r.Deployment.ID == id && r.State != Broken && r.State != Discarding
}

// Programs returns the runs of the host's programs for the deployment, oldest
// first; phase "": of all phases.
func (s *Deployments) Programs(id, phase string) []Program {
	return slices.DeleteFunc(programsIn(s.path(id)), func(p Program) bool { return phase != "" && p.Phase() != phase })
}

// Output returns what a program has printed, raw. Of more than 1 MiB it is the
// beginning and the end.
func (s *Deployments) Output(id string, p *Program) ([]byte, error) {
	return readOutput(s.path(id, p.Label+".output"))
}

// Follow gives the lines of the deployment's programs, each cut after 8 KiB,
// from the beginning until the deployment has ended or ctx is done; phase "":
// of all phases. A program that runs once more begins anew.
func (s *Deployments) Follow(ctx context.Context, id, phase string, onLine func(label, line string)) error {
	tails := map[string]*tail{}
	defer func() {
		for _, t := range tails {
			t.close()
		}
	}()
	for goes := true; goes; {
		goes = s.UnderWay(id) // before the last look
		for _, p := range s.Programs(id, phase) {
			t := tails[p.Label]
			if t != nil && t.replaced() && s.UnderWay(id) { // else it was cut to what evidence keeps
				t.finish(ctx)
				t.close()
				t = nil
			}
			if t == nil {
				t = &tail{path: s.path(id, p.Label+".output"), onLine: func(text string) { onLine(p.Label, text) }}
				tails[p.Label] = t
			}
			t.poll(ctx)
			if !p.Running {
				t.finish(ctx)
			}
			if t.err != nil {
				return t.err
			}
		}
		if goes && sleep(ctx, hookTick) != nil {
			return context.Cause(ctx)
		}
	}
	return nil
}

// WriteTar writes all evidence of a deployment as a tar archive: equal evidence
// makes equal bytes. Locks and half-written files are left out.
func (s *Deployments) WriteTar(id string, w io.Writer) error {
	e, err := s.Evidence(id)
	if err != nil {
		return err
	}
	at := e.Deployment.Ended
	if at.IsZero() {
		at = e.Deployment.Started
	}
	t := tar.NewWriter(w)
	header := tar.Header{Typeflag: tar.TypeDir, Name: id + "/", Mode: 0o755, ModTime: at.Truncate(time.Second), Format: tar.FormatUSTAR}
	if err := t.WriteHeader(&header); err != nil {
		return err
	}
	files, err := s.files(id, e)
	if err != nil {
		return err
	}
	for _, f := range files {
		header.Typeflag, header.Name, header.Mode, header.Size = tar.TypeReg, id+"/"+f.name, 0o644, int64(len(f.content))
		if err := t.WriteHeader(&header); err != nil {
			return err
		}
		if _, err := t.Write(f.content); err != nil {
			return err
		}
	}
	return t.Close()
}

type evidenceFile struct {
	name    string
	content []byte
}

// files are those of an export, by name.
func (s *Deployments) files(id string, e *Evidence) ([]evidenceFile, error) {
	b, err := os.ReadFile(s.path(id, evidenceName))
	if errors.Is(err, fs.ErrNotExist) {
		b, err = e.encode()
	}
	if err != nil {
		return nil, err
	}
	all := []evidenceFile{{evidenceName, b}}
	entries, err := os.ReadDir(s.path(id))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	for _, e := range entries {
		name := e.Name()
		if strings.HasPrefix(name, ".") || name == evidenceName || !e.Type().IsRegular() || filepath.Ext(name) == ".lock" {
			continue
		}
		b, err := readOutput(s.path(id, name))
		if err != nil {
			return nil, err
		}
		all = append(all, evidenceFile{name, b})
	}
	slices.SortFunc(all, func(x, y evidenceFile) int { return strings.Compare(x.name, y.name) })
	return all, nil
}
