"""The finished parts of the course: each is built inline in a notebook first, then imported."""
