package registry_test

import (
	"fmt"
	"testing"

	"deploytools/registry"
)

// U-23, B-09: what a printed rollback line leads back to is not deleted.
func TestARollbackTargetIsNotDeleted(t *testing.T) {
	w, r := stocked(t)
	configure(t, r, "web", "code:v1")
	change(t, r, "web", "code:v2")
	err := deleteVersion(t.Context(), r, "code", "v1")
	wantKind(t, "DeleteVersion of the rollback target", err, registry.ErrConflict)
	if want := `version "v1" is needed to roll configuration "web" back to revision 1, one of its newest 10`; err.Error() != want {
		t.Errorf("DeleteVersion = %q, want %q", err, want)
	}
	change(t, r, "web", "code:v3")
	err = deleteComponent(t.Context(), r, "code")
	wantKind(t, "DeleteComponent in use", err, registry.ErrConflict)

	// Of a component that is used no more, but was, nothing goes either.
	if _, err := r.AddConfiguration(t.Context(), act, "web", refs(t, "base:v1"), registry.Checks{}, true); err != nil {
		t.Fatal(err)
	}
	err = deleteComponent(t.Context(), r, "code")
	wantKind(t, "DeleteComponent of the rollback target", err, registry.ErrConflict)
	wantVersions(t, r, "code", "v1", "v2", "v3")
	rollback(t, r, "web", 1)
	wantLayers(t, r, "web", "code:v1")
	w.fsck(t)
}

// The window moves on with each revision, and a configuration that was deleted
// keeps nothing.
func TestWhatNoRollbackNeedsIsDeleted(t *testing.T) {
	_, r := stocked(t)
	configure(t, r, "web", "code:v1", "base:v1")
	change(t, r, "web", "code:v2") // 2
	for i := range 8 {             // 3 to 10
		change(t, r, "web", fmt.Sprintf("base:v%d", 2-i%2))
	}
	err := deleteVersion(t.Context(), r, "code", "v1")
	wantKind(t, "DeleteVersion of what revision 1 of 10 has", err, registry.ErrConflict)
	change(t, r, "web", "base:v3")
	if err := deleteVersion(t.Context(), r, "code", "v1"); err != nil {
		t.Errorf("DeleteVersion of what revision 1 of 11 has = %v", err)
	}
	if err := deleteConfiguration(t.Context(), r, "web"); err != nil {
		t.Fatal(err)
	}
	if err := deleteComponent(t.Context(), r, "code"); err != nil {
		t.Errorf("DeleteComponent of what only a deleted configuration had = %v", err)
	}
}
