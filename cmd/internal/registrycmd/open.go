package registrycmd

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"deploytools/atomic"
	"deploytools/cmd/internal/cli"
	"deploytools/cmd/internal/ops"
	"deploytools/registry"
	"deploytools/registry/boltmeta"
	"deploytools/registry/fsblobs"
)

// What lies in the directory.
const (
	stateFile  = "state.db"
	filesDir   = "files"
	uploadsDir = "uploads"
	hostKeys   = "host_key*" // a pattern
	// unfinished says that a restore has not come to its end.
	unfinished = "restore.unfinished"
)

// store is the engines below a directory and the domain over them.
type store struct {
	meta *boltmeta.DB
	reg  *registry.Registry
}

// close ends them.
func (s *store) close() error {
	s.reg.Close()
	return s.meta.Close()
}

// open opens the engines below the directory, which it makes, and the domain
// over them. An upstream database is imported first.
func (s *settings) open(ctx context.Context, log *slog.Logger) (*registry.Registry, func(), error) {
	if err := atomic.MkdirAll(s.dir, 0o700); err != nil {
		return nil, nil, cli.WithHint(err, cli.DirHint)
	}
	_, missing := os.Lstat(filepath.Join(s.dir, stateFile))
	st, err := s.openStore()
	if err == nil && errors.Is(missing, fs.ErrNotExist) {
		log.Warn("new registry made, there was none in the directory", "dir", s.dir)
	}
	if errors.Is(err, boltmeta.ErrUpstream) {
		if err := s.importAtStart(ctx, log); err != nil {
			return nil, nil, err
		}
		st, err = s.openStore()
	}
	if err != nil {
		return nil, nil, err
	}
	return st.reg, func() {
		if err := st.close(); err != nil {
			log.Error("database closed", "error", err)
		}
	}, nil
}

// openStore opens what is there; its errors say what to do.
func (s *settings) openStore() (*store, error) {
	if _, err := os.Lstat(filepath.Join(s.dir, unfinished)); err == nil {
		return nil, cli.WithHint(fmt.Errorf("directory %s holds a part of a backup: a restore was not finished", s.dir),
			fmt.Sprintf("run it again: deploy-registry restore -dir %s <BACKUP", s.dir))
	} else if !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	meta, err := boltmeta.Open(filepath.Join(s.dir, stateFile), boltmeta.Options{})
	if err != nil {
		return nil, s.explain(err)
	}
	blobs, spool, err := fsblobs.Open(s.dir)
	if err == nil {
		// The lock on the database makes this process the owner of the rest.
		err = blobs.Sweep()
	}
	if err != nil {
		return nil, errors.Join(err, meta.Close())
	}
	return &store{meta: meta, reg: registry.New(registry.Options{
		Meta: meta, Blobs: blobs, Spool: spool, Check: checkFunc(s.layers), Identity: func() (map[string][]byte, error) { return identity(s.dir) },
		MaxVersions: s.maxVersions, MaxUpload: s.maxUpload, MinFree: s.minFree, Quota: s.quota, CheckMemory: s.checkMemory, AuditKeep: s.auditKeep,
		UploadExpiry: s.upkeep.expiry, Grace: s.upkeep.grace,
	})}, nil
}

// explain says what to do about a database that cannot be opened.
func (s *settings) explain(err error) error {
	switch {
	case errors.Is(err, boltmeta.ErrInUse):
		return cli.WithHint(err, fmt.Sprintf("another deploy-registry is using the directory %s (-dir): find it with 'ps -C deploy-registry', its log tells where it listens", s.dir))
	case errors.Is(err, boltmeta.ErrDamaged):
		return cli.WithHint(err, fmt.Sprintf("restore a backup into a new directory and start with that one: deploy-registry restore -dir %s.new <BACKUP; keep %s, its files directory still holds the layers", s.dir, s.dir))
	case errors.Is(err, boltmeta.ErrNewer):
		return cli.WithHint(err, "install the deploy-registry that wrote it, or restore a backup of this one's into a new directory")
	}
	return err
}

// identity reads the host keys.
func identity(dir string) (map[string][]byte, error) {
	names, err := filepath.Glob(filepath.Join(dir, hostKeys))
	out := map[string][]byte{}
	for _, name := range names {
		if err != nil {
			break
		}
		out[filepath.Base(name)], err = os.ReadFile(name)
	}
	return out, err
}

// importAtStart imports the database of the archived tool set, once.
func (s *settings) importAtStart(ctx context.Context, log *slog.Logger) error {
	log.Info("database of the archived deploy-registry found, importing it")
	told := time.Time{}
	got, _, err := s.migrate(ctx, migration{progress: func(done, total int) {
		if time.Since(told) < 5*time.Second {
			return
		}
		told = time.Now()
		// Reading all layers may take longer than a service may take to start.
		ops.Extend(10 * time.Minute)
		ops.Status(fmt.Sprintf("importing: %d of %d versions", done, total))
		log.Info("importing", "done", done, "total", total)
	}})
	if err != nil {
		return s.explain(err)
	}
	for _, f := range got.Faults {
		log.Warn("import found a fault", "error", f.Text, "hint", f.Do)
	}
	log.Info("database imported, the old one stays beside it", "versions", got.Versions, "configurations", got.Configurations,
		"revisions", got.Revisions, "file", stateFile+boltmeta.KeptSuffix)
	return nil
}
