"""Images as `Sites`: arrays, `.npz` files and folders of PNG, JPEG or DICOM."""
