package directory

// At makes the target tell f of each effect on the file system.
func (t *Target) At(f func(point string)) { t.at = f }
