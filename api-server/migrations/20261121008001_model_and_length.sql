-- Vectors belong to a model and, where one was chosen, a length: `name@1024`. A name may have 128 characters.
ALTER TABLE memory_embeddings
    DROP CONSTRAINT memory_embeddings_model_check,
    ADD CONSTRAINT memory_embeddings_model_check CHECK (length(model) BETWEEN 1 AND 144) NOT VALID;
ALTER TABLE approximate_people
    DROP CONSTRAINT approximate_people_model_check,
    ADD CONSTRAINT approximate_people_model_check CHECK (length(model) BETWEEN 1 AND 144) NOT VALID;
