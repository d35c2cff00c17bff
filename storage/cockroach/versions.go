package cockroach

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"github.com/pressly/goose/v3/database"
)

// versions is goose's version store in a table that CockroachDB 21.1 accepts too; goose's own
// for PostgreSQL has GENERATED ... AS IDENTITY. Every write may be repeated, because two
// processes may migrate at once.
type versions struct{}

var _ database.StoreExtender = versions{}

const (
	createVersionsSQL = `CREATE TABLE IF NOT EXISTS purser_schema (
    version BIGINT NOT NULL PRIMARY KEY,
    apply_time TIMESTAMPTZ NOT NULL DEFAULT now()
)`
	insertVersionSQL = `INSERT INTO purser_schema (version) VALUES ($1) ON CONFLICT (version) DO NOTHING`
	deleteVersionSQL = `DELETE FROM purser_schema WHERE version = $1`
	getVersionSQL    = `SELECT apply_time FROM purser_schema WHERE version = $1`
	latestVersionSQL = `SELECT max(version) FROM purser_schema`
	listVersionsSQL  = `SELECT version FROM purser_schema ORDER BY version DESC`
	zeroVersionSQL   = `SELECT count(*) FROM purser_schema WHERE version = 0`
	versionsExistSQL = `SELECT count(*) FROM information_schema.tables
WHERE table_schema = current_schema() AND table_name = 'purser_schema'`
)

// Tablename see [database.Store].
func (versions) Tablename() string { return versionTable }

// CreateVersionTable see [database.Store].
func (versions) CreateVersionTable(ctx context.Context, db database.DBTxConn) error {
	_, err := db.ExecContext(ctx, createVersionsSQL)
	return err
}

// Insert see [database.Store].
func (versions) Insert(ctx context.Context, db database.DBTxConn, req database.InsertRequest) error {
	_, err := db.ExecContext(ctx, insertVersionSQL, req.Version)
	return err
}

// Delete see [database.Store]. Migrations only go forward; goose asks for the method.
func (versions) Delete(ctx context.Context, db database.DBTxConn, version int64) error {
	_, err := db.ExecContext(ctx, deleteVersionSQL, version)
	return err
}

// GetMigration see [database.Store].
func (versions) GetMigration(ctx context.Context, db database.DBTxConn, version int64) (*database.GetMigrationResult, error) {
	r := database.GetMigrationResult{IsApplied: true}
	err := db.QueryRowContext(ctx, getVersionSQL, version).Scan(&r.Timestamp)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, fmt.Errorf("migration %d: %w", version, database.ErrVersionNotFound)
	}
	return &r, err
}

// GetLatestVersion see [database.Store].
func (versions) GetLatestVersion(ctx context.Context, db database.DBTxConn) (int64, error) {
	var v sql.NullInt64
	if err := db.QueryRowContext(ctx, latestVersionSQL).Scan(&v); err != nil {
		return 0, err
	}
	if !v.Valid {
		return 0, database.ErrVersionNotFound
	}
	return v.Int64, nil
}

// ListMigrations see [database.Store].
func (versions) ListMigrations(ctx context.Context, db database.DBTxConn) (list []*database.ListMigrationsResult, err error) {
	rows, err := db.QueryContext(ctx, listVersionsSQL)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	for rows.Next() {
		r := database.ListMigrationsResult{IsApplied: true}
		if err := rows.Scan(&r.Version); err != nil {
			return nil, err
		}
		list = append(list, &r)
	}
	return list, rows.Err()
}

// TableExists see [database.StoreExtender]. A table without goose's zero version, which another
// process may be about to insert, counts as missing: making it again does no harm, while goose
// gives up on one that is there and empty.
func (versions) TableExists(ctx context.Context, db database.DBTxConn) (bool, error) {
	var n int64
	if err := db.QueryRowContext(ctx, versionsExistSQL).Scan(&n); err != nil || n == 0 {
		return false, err
	}
	err := db.QueryRowContext(ctx, zeroVersionSQL).Scan(&n)
	return n > 0, err
}
