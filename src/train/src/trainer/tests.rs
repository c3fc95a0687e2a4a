mod best;
mod record;
mod shards;
