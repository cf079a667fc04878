package manifest

// Change is one path in which two trees differ. Old is nil where the path was
// added, New where it was removed.
type Change struct {
	Path     string
	Old, New *Entry
}

// Diff returns the changes that lead from old to new, by path. Both must be
// sorted; the result points into them.
func Diff(old, new Manifest) []Change {
	var out []Change
	for i, j := 0, 0; i < len(old) || j < len(new); {
		switch {
		case j == len(new) || i < len(old) && old[i].Path < new[j].Path:
			out = append(out, Change{old[i].Path, &old[i], nil})
			i++
		case i == len(old) || new[j].Path < old[i].Path:
			out = append(out, Change{new[j].Path, nil, &new[j]})
			j++
		default:
			if old[i] != new[j] {
				out = append(out, Change{old[i].Path, &old[i], &new[j]})
			}
			i, j = i+1, j+1
		}
	}
	return out
}
