mod best;
mod record;
